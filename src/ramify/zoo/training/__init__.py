"""How `ramify-tiny` is made: vocabulary, training data, model, optimiser, loop, accuracy."""
