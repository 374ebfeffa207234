"""From a mailbox to a model that writes like its owner, measured."""
