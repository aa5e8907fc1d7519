"""The same main job, written the usual way on other queues: what the benchmark compares with."""
