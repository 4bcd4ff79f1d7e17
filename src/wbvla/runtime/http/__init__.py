"""Policies over HTTP, for X-VLA's own clients and for anything that can post JSON.

In: observations posted to `/act`. Out: action chunks; `/health` and `/metrics` beside them.
The client needs the base dependencies only, the server the extra `serve`.
"""
