"""A gallery appraised on a label: how good neighbours are, for whom, how far their votes can be believed."""
