/* Where, Clip, PRelu: elementwise choices. */
