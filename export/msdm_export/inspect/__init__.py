"""What a bundle holds and costs, where its plans run, and what is missing for a GPU."""
