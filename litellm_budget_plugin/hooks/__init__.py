"""The only package that patches LiteLLM: the gate before every call, and the settlement after every attempt."""
