"""The AD Expert: reference features to anomaly_map, image_score and regions."""
