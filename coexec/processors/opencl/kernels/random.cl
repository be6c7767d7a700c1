/* Counter-based random masks. */
