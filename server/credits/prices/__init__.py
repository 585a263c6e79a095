"""Model prices, the credit price and margins: the book in force, its rows, its import."""
