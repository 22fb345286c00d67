"""Asking an exported ensemble that TensorFlow Serving serves, over gRPC or REST.

`remote.RemoteEnsemble` answers as `ensemble.bundle.ServedEnsemble` does; a transport (`grpc_transport`,
`rest_transport`) carries one question; `retry` decides what is asked again.
"""
