"""Reads and writes keys over gRPC: python3 store.py 127.0.0.1:7401

Needs grpcio, and stubs made with grpcio-tools:
    python3 -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. \
        proto/keyviz/v1/kv.proto
"""

import sys

import grpc
from keyviz.v1 import kv_pb2, kv_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
# With TLS: grpc.secure_channel(address, grpc.ssl_channel_credentials(open("ca.pem", "rb").read()))
kv = kv_pb2_grpc.KvStub(channel)

try:
    kv.Put(kv_pb2.PutRequest(key=b"py/a", value=b"1"), timeout=10)
except grpc.RpcError as error:
    not_applied = ("keyviz-not-applied", "true") in error.trailing_metadata()
    # A write may be sent again only if it certainly did not happen.
    print("the write did not happen" if not_applied else "the outcome is unknown", error.code())
    raise

answer = kv.Get(kv_pb2.GetRequest(key=b"py/a"), timeout=10)
print(answer.value if answer.HasField("value") else "no such key")

for page in kv.Scan(kv_pb2.ScanRequest(start=b"py/", end=b"py0"), timeout=60):
    for row in page.rows:
        print(row.key, row.value)
