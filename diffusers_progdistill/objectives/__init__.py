"""What a stage optimises. One file is one objective, and reads from a batch to its loss."""
