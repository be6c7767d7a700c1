/* Softmax, LogSoftmax and their gradients. */
