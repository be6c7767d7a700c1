"""What an operator costs on a chip that is not here: figures of its file, and fitted factors."""
