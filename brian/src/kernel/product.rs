//! Products of rows with a map, without a copy of what is transposed.

use super::node::{Gradient, Pass, Rows, input, run};
use super::numeric::{add_product, product, product_if};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// `x W`.
///
/// # Shapes
/// `[n, d_in]` and `[d_in, d_out]` to `[n, d_out]`
pub(crate) fn times<B: Backend>(x: &Tensor<B, 2>, map: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    run(Times { transposed: false }, [input(x), input(map)])
}

/// `x Wᵀ`.
///
/// # Shapes
/// `[n, d_in]` and `[d_out, d_in]` to `[n, d_out]`
pub(crate) fn times_transposed<B: Backend>(
    x: &Tensor<B, 2>,
    map: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    run(Times { transposed: true }, [input(x), input(map)])
}

/// `y + x W`.
///
/// # Shapes
/// `[n, d_out]`, `[n, d_in]` and `[d_in, d_out]` to `[n, d_out]`
pub(crate) fn add_times<B: Backend>(
    y: &Tensor<B, 2>,
    x: &Tensor<B, 2>,
    map: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    run(AddTimes, [input(y), input(x), input(map)])
}

#[derive(Clone, Debug)]
struct Times {
    transposed: bool,
}

impl Pass<2> for Times {
    type Kept = ();

    fn forward(&self, [x, map]: &[Rows; 2]) -> (Array2<f32>, ()) {
        let map = match self.transposed {
            true => map.t(),
            false => map.view(),
        };
        (product(x.view(), map), ())
    }

    fn backward(
        &self,
        [x, map]: &[Rows; 2],
        (): (),
        gradient: Rows,
        wanted: [bool; 2],
    ) -> [Option<Gradient>; 2] {
        let back = match self.transposed {
            true => map.view(),
            false => map.t(),
        };
        let of_x = product_if(wanted[0], gradient.view(), back);
        let of_map = wanted[1].then(|| match self.transposed {
            true => Gradient::Product(gradient, x.clone()),
            false => Gradient::Product(x.clone(), gradient),
        });
        [of_x, of_map]
    }
}

#[derive(Clone, Debug)]
struct AddTimes;

impl Pass<3> for AddTimes {
    type Kept = ();

    fn forward(&self, [y, x, map]: &[Rows; 3]) -> (Array2<f32>, ()) {
        let mut sum = y.to_owned();
        add_product(x.view(), map.view(), &mut sum);
        (sum, ())
    }

    fn backward(
        &self,
        [_, x, map]: &[Rows; 3],
        (): (),
        gradient: Rows,
        wanted: [bool; 3],
    ) -> [Option<Gradient>; 3] {
        let of_x = product_if(wanted[1], gradient.view(), map.t());
        let of_map = wanted[2].then(|| Gradient::Product(x.clone(), gradient.clone()));
        [wanted[0].then_some(Gradient::Whole(gradient)), of_x, of_map]
    }
}
