"""How the store is used from Python: `MetadataStore` and what it takes and returns.

One noun per file: `store` (the synchronous shell), `call` (one request: attempts, endpoints, deadlines, session),
`operation` (what is asked and how an answer is read), `record` and `value` (what is handed out), `channel` (sockets),
`stream` and `watch` (a watch without and with its sockets). Imports `wire` and `errors` alone, besides ZeroMQ.
"""
