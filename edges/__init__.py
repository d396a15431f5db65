"""The edges of the plant: a watched folder in, verdicts out to MQTT and webhooks, traces and metrics beside them."""
