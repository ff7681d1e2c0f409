"""The two hosts of a gateway's handlers: Envoy with Python inside, and grpc.aio."""
