"""The storage engine: a durable message log that any number of threads and processes may share."""
