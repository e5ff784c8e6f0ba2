"""Methods that are given the target's images, without labels: unsupervised domain adaptation, on a board of its own."""
