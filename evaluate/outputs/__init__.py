"""What an evaluation leaves: the page, the summaries, the lines for each picture, their words."""
