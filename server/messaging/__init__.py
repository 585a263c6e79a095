"""Messages that outlive a crash: the transactional outbox, its dispatcher, the bus."""
