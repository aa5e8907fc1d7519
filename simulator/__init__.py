"""The outside world, as a separate program: a payment gateway and an infrastructure that can be
told to misbehave. It knows nothing of the project it is used to test."""
