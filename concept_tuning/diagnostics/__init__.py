"""What a model looks at, which features are rare, and which are shortcuts: frozen results, never figures."""
