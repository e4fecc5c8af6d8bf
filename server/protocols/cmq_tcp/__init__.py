"""CMQ over TCP: frames of protobuf, many requests in flight, verdicts of halves asked for."""
