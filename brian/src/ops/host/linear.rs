//! Fused linear maps on the host: products of rows with a weight matrix or its transpose, which is not copied.

use super::super::groups::Group;
use super::custom_op::{FusedPass, input, of_first, run, run_many};
use super::gather::{pick, put_back};
use super::gemm::product;
use super::gradient::{Gradient, product_if};
use super::groups::{n_rows, run_each, share};
use super::numeric::{Rows, copied, part};
use super::packed::Packed;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// `x W`.
///
/// # Shapes
/// `[n, d_in]` and `[d_in, d_out]` to `[n, d_out]`
pub(crate) fn linear<B: Backend>(x: &Tensor<B, 2>, map: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    run(Times { transposed: false }, [input(x), input(map)])
}

/// `x Wᵀ`.
///
/// # Shapes
/// `[n, d_in]` and `[d_out, d_in]` to `[n, d_out]`
pub(crate) fn linear_transposed<B: Backend>(
    x: &Tensor<B, 2>,
    map: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    run(Times { transposed: true }, [input(x), input(map)])
}

/// `y + x W`, where each group of rows has its own `W`; `which` says which rows of `y` are meant, if not all.
///
/// # Shapes
/// `[n, d_out]`, or `[…, d_out]` with `which`, `[n, d_in]` and `[d_in, d_out]` to `[n, d_out]`
pub(crate) fn add_linear<B: Backend>(
    y: &Tensor<B, 2>,
    which: Option<&[usize]>,
    x: &Tensor<B, 2>,
    groups: &[Group<&Linear<B>>],
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let pass = AddTimes {
        which: which.map(<[usize]>::to_vec),
        n_rows: n_rows(groups),
        packed: packed.clone(),
    };
    let maps = groups.iter().map(|group| input(&group.of.weight.val()));
    run_many(pass, [input(y), input(x)].into_iter().chain(maps).collect())
}

#[derive(Clone, Debug)]
struct Times {
    transposed: bool,
}

impl FusedPass<2> for Times {
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
struct AddTimes {
    which: Option<Vec<usize>>,
    n_rows: Vec<usize>,
    packed: Packed,
}

impl<const N: usize> FusedPass<N> for AddTimes {
    type Kept = ();

    fn forward(&self, inputs: &[Rows; N]) -> (Array2<f32>, ()) {
        let [y, x, maps @ ..] = inputs.as_slice() else {
            unreachable!("y, x and maps");
        };
        let mut sum = match &self.which {
            Some(which) => pick(y, which),
            None => copied(y),
        };
        run_each(&self.n_rows, maps, &mut sum, |which, map, out| {
            self.packed
                .add_product(part(x.view(), 0, which), map.view(), out);
        });
        (sum, ())
    }

    fn backward(
        &self,
        inputs: &[Rows; N],
        (): (),
        gradient: Rows,
        wanted: [bool; N],
    ) -> [Option<Gradient>; N] {
        let [_, x, maps @ ..] = inputs.as_slice() else {
            unreachable!("y, x and maps");
        };
        let mut of_x = Array2::zeros(x.dim());
        let of_maps = run_each(&self.n_rows, maps, &mut of_x, |which, map, out| {
            let gradient = share(&gradient, which.clone());
            if wanted[1] {
                self.packed.add_product(gradient.view(), map.t(), out);
            }
            Some(Gradient::Product(share(x, which), gradient))
        });
        let of_y = match &self.which {
            Some(which) => put_back(gradient, which),
            None => Gradient::Whole(gradient),
        };
        let found = [of_y, of_x.into()].map(Some);
        of_first(found.into_iter().chain(of_maps))
    }
}
