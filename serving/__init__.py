"""Who is served when (gRPC)."""
