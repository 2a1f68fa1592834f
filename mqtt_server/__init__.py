"""The gateway: MQTT JSON to tags to field writes."""
