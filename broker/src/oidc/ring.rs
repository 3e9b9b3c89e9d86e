//! `jsonwebtoken`'s signatures by *ring*, which TLS here stands on, too: one library for all
//! cryptography with public keys. It verifies; nothing here signs by it.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self as by, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use signature::Verifier;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Has this process verify with *ring*. Another call changes nothing.
pub(super) fn install() {
    // Fails where it is installed already, by us.
    let _ = PROVIDER.install_default();
    let _ = rustls::crypto::ring::default_provider().install_default();
}

struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    Ok(Box::new(ByRing { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let plain: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &by::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &by::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &by::ED25519,
            Algorithm::RS256 => return self.rsa(&by::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => return self.rsa(&by::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => return self.rsa(&by::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => return self.rsa(&by::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => return self.rsa(&by::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => return self.rsa(&by::RSA_PSS_2048_8192_SHA512, message, signature),
            // A shared secret proves nothing about who made a token.
            _ => return Err(signature::Error::new()),
        };
        let DecodingKeyKind::SecretOrDer(key) = self.key.kind() else { return Err(signature::Error::new()) };
        UnparsedPublicKey::new(plain, key).verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl ByRing {
    fn rsa(&self, parameters: &by::RsaParameters, message: &[u8], signature: &[u8]) -> Result<(), signature::Error> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else {
            return Err(signature::Error::new());
        };
        RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).map_err(|_| signature::Error::new())
    }
}

#[cfg(not(test))]
fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(new_error(ErrorKind::InvalidAlgorithm))
}

#[cfg(test)]
use tests::signer;

#[cfg(test)]
pub(super) mod tests {
    //! Tests sign, by the same library: nothing else in this crate can.

    use super::*;
    use ::signature::Signer;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};

    struct Signs(Algorithm, EncodingKey);

    pub(super) fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
        Ok(Box::new(Signs(*algorithm, key.clone())))
    }

    impl JwtSigner for Signs {
        fn algorithm(&self) -> Algorithm {
            self.0
        }
    }

    impl Signer<Vec<u8>> for Signs {
        fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, ::signature::Error> {
            let (rng, key) = (SystemRandom::new(), self.1.as_bytes());
            match self.0 {
                Algorithm::ES256 => {
                    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &rng).unwrap();
                    Ok(pair.sign(&rng, message).unwrap().as_ref().to_vec())
                }
                Algorithm::RS256 => {
                    let pair = RsaKeyPair::from_pkcs8(key).unwrap();
                    let mut signature = vec![0; pair.public().modulus_len()];
                    pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature).unwrap();
                    Ok(signature)
                }
                Algorithm::HS256 => {
                    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
                    Ok(ring::hmac::sign(&key, message).as_ref().to_vec())
                }
                _ => Err(::signature::Error::new()),
            }
        }
    }
}
