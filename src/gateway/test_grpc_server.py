"""A gRPC server for the gateway's tests: ADDRESS PORT CERTIFICATE KEY. Stream echoes in capitals, Fail fails."""
import concurrent.futures, sys

import grpc


def stream(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")


address, port, certificate, key = sys.argv[1:5]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
    "Stream": grpc.stream_stream_rpc_method_handler(stream),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}),))
credentials = grpc.ssl_server_credentials([(open(key, "rb").read(), open(certificate, "rb").read())])
server.add_secure_port(f"{address}:{port}", credentials)
server.start()
server.wait_for_termination()
