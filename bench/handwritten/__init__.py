"""What someone writes by hand from the same tables and topics, as well tuned as that design allows: what
``make bench-moderation`` compares the service with."""
