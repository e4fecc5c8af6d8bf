"""What the operator can count."""
