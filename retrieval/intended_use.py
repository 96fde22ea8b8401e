"""What Precedent is for, in the sentence that every answer carries."""

INTENDED_USE = "Research and education. Not a medical device: not for diagnosis or treatment decisions."
