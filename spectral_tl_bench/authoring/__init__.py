"""For authors of methods: a package to start from, and checks of what a method does."""
