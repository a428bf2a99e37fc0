"""A network with its noise process, its prediction type and its conditioning: what everything above works on."""
