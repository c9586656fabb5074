"""The server that answers with the champions' SavedModels over HTTP. It needs TensorFlow, but no Keras."""
