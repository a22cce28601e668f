"""What any API asks of the model and gets from it; knows no JSON."""
