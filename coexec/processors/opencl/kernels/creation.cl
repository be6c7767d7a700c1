/* Range, ConstantOfShape, ... */
