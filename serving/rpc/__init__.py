"""The gRPC border: servicers, wire messages, statuses, interceptors and the server."""
