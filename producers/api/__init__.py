"""The HTTP API, ``/v1``: what upstream systems and operators ask and have done."""
