"""CMQ over HTTP: the v2 actions and the control plane of API 3.0."""
