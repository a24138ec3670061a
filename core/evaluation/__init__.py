"""What a pretrained encoder is worth: probes with few labels and many, neighbours, episodes, geometry."""
