"""For plugin authors and our own tests: conformance suites, and a server that misbehaves on demand."""
