"""From neighbours to answers that can be cited: votes, probabilities, estimates, and what is not known."""
