"""What CMQ means by queue, topic and message, for both of its wires: HTTP and TCP."""
