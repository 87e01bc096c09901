"""What a network may be trained to predict; apart from the loss, so that a configuration is checked without torch."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
