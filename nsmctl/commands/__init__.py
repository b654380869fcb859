"""The commands of nsmctl, thin."""
