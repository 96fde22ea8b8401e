"""Networks in files with a card beside them, ONNX or torch: the card says what no such file does."""
