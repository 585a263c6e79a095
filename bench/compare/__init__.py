"""What a user would pick instead, beside the server: on the same mongod, in the same run."""
