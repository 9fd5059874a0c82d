"""From a data file to a batch: files, columns, labels, collators and samplers."""
