"""What an operator runs against AWS, by `make`: packaging, deploying, secrets, parameters, test events."""
